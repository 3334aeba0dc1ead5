"""The report of a run or a sweep as one HTML file, which holds all that it shows and lets nothing that it shows run."""
