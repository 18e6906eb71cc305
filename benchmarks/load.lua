-- What wrk sends, and what it reports of it. The argument: of so many requests one shall fail; 0 none.

function init(arguments)
  local every = tonumber(arguments[1])
  if every > 0 then
    local good, bad = wrk.format("GET", "/bench/x"), wrk.format("GET", "/bench/fail")
    local count = 0
    request = function()
      count = count + 1
      return count % every == 0 and bad or good
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failed": %d, "lost": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
