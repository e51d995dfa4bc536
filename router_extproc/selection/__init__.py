"""How one of a route's candidates is chosen, one small file per way; `table` lists them."""
