"""The mathematics: graphs, losses, sampling, models. No files, no network, no federation."""
