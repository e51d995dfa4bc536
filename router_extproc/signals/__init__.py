"""Facts about a request, one small file per kind; `table` lists them."""
