"""What is done to the rows of any data set between reading and serving them."""
