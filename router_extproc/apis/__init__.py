"""The client APIs: one file each knows where texts, limits and the model stand in a body; `table` lists them."""
