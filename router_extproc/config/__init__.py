"""router.yaml: `schema` its shape, with `section`, `model`, `price`, `policy`, `preferences`, `limits`, `sessions`,
`accounting` and `store`; `loader` file to model with lines, `watcher` reload, `envoy` the Envoy config."""
