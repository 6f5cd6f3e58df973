"""What is kept: the server's versions, the devices' halves, the ledger of requests; and forgetting over all three."""
