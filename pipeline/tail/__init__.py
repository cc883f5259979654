"""What `pipeline tail` makes of records: which are wanted, what of them is shown, and how it is written."""
