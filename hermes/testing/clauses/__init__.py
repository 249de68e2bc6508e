"""The clauses of the contract, each as a check of its own; `hermes.testing.check_platform` puts them together."""
