"""What outlives a request: `journal` files on disk; `base` what replicas share, in `memory` or `redis`, per `table`."""
