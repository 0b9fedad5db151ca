"""`relisten evaluate`: error rates, their intervals, and the report."""
