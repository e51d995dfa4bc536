"""Does a request get through Envoy to the sidecar and back? The catalogue is answered by the sidecar itself."""

import json
import sys
import urllib.request

url, model = sys.argv[1:]
with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as response:
    names = [entry["id"] for entry in json.load(response)["data"]]
print(names)
sys.exit(0 if model in names else 1)
