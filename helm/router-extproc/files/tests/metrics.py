"""Can Prometheus read the sidecar?"""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=30) as response:
    page = response.read().decode()
print(f"{len(page.splitlines())} lines")
sys.exit(0 if "\nmom_config_generation" in page else 1)
