"""Reading runs back: tables and figures. Neither torch nor Lightning is imported here."""
