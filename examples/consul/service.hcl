# Consul registers the service of the command (8080) and asks kapo (6666) for its health.
#   consul services register service.hcl
# 429 is the only code that Consul takes for a warning; kapo answers 200 or 503, so a check passes or is critical.
service {
  name = "worker"
  port = 8080

  # May it get traffic? Not between two runs, not while it is being stopped. A stop loses no request if the command
  # goes on until Consul has noticed it and its clients have asked again (7 s here): kapo supervise --drain 10.
  check {
    id       = "worker-ready"
    name     = "ready"
    http     = "http://127.0.0.1:6666/readyz"
    interval = "5s"
    timeout  = "2s"
  }

  # Does it end again and again? The output of ?verbose shows in Consul's own pages.
  check {
    id       = "worker-health"
    name     = "health"
    http     = "http://127.0.0.1:6666/healthz?verbose"
    interval = "15s"
    timeout  = "2s"
    # Gone for good: the container or the machine was removed without a word.
    deregister_critical_service_after = "24h"
  }
}
