"""router.yaml: `schema` its shape, `loader` file to model with lines, `watcher` reload, `envoy` the Envoy config."""
