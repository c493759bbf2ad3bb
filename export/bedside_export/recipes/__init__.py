"""How the built-in bundles were trained: data, networks and measurements, one recipe a bundle."""
