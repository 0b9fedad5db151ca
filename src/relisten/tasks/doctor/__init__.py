"""`relisten doctor`: the checks and the conclusion from them."""
