"""`python -m agent.healthcheck`: 0 when /health says so. For images that have no curl; loads as little as it can."""

import http.client
import sys


def main() -> int:
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=4)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        print(response.status, response.read(500).decode(errors="replace"))
        return 0 if response.status == 200 else 1
    except OSError as e:
        print(e)
        return 1


if __name__ == "__main__":
    sys.exit(main())
