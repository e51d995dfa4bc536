"""router.yaml: `schema` its shape, `loader` file to model with line numbers, `watcher` reload, `envoy` Envoy's config."""
