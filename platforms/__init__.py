"""One folder a messaging service; found through the entry-point group `hermes.platforms`, never imported by `hermes`."""
