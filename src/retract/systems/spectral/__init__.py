"""The start that federated systems share: the leading subspace of all interactions, found by the clients together."""
