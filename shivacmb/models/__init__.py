"""Model bundles, architectures, engines and ensembles."""
