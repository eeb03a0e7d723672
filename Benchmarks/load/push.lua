-- What wrk sends: pushes over many groups, as the official Go client frames them.
-- wrk … -s push.lua URL -- GROUPS BODY_BYTES KEEP_ALIVE(1|0) LEAST_DELAY_MS MOST_DELAY_MS PIPELINED
--
-- Every request is made once, at the start: wrk shares its core with the stub shard, and its own work is not the matter
-- here. At the end one line of JSON, which the harness reads; times in microseconds.

local requests, count, at = {}, 0, 0

-- Lines of the text format, of about the size of real ones, to the wanted length.
local function body_of(bytes)
  local lines = {
    "# TYPE backup_duration_seconds gauge", "backup_duration_seconds 14.25",
    "# TYPE backup_last_success_timestamp_seconds gauge", "backup_last_success_timestamp_seconds 1.7636e+09",
  }
  local length = #table.concat(lines, "\n") + 1
  local index = 0
  while length < bytes do
    local line = string.format('backup_files{volume="%d",state="done"} %d', index, index * 7 + 3)
    lines[#lines + 1] = line
    length = length + #line + 1
    index = index + 1
  end
  return table.concat(lines, "\n") .. "\n"
end

function init(args)
  local groups, bytes, keep_alive = tonumber(args[1]), tonumber(args[2]), args[3] == "1"
  local least, most, pipelined = tonumber(args[4]), tonumber(args[5]), tonumber(args[6])
  local body = body_of(bytes)
  local headers = {
    ["User-Agent"] = "Go-http-client/1.1",
    ["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8",
    ["Accept-Encoding"] = "gzip",
  }
  if not keep_alive then headers["Connection"] = "close" end
  for group = 0, groups - 1 do
    local path = string.format("/metrics/job/batch_%d/instance/host-%d", group, group)
    requests[group + 1] = wrk.format("POST", path, headers, body)
  end
  count = math.floor(groups / pipelined)
  for index = 1, count do
    requests[index] = table.concat(requests, "", (index - 1) * pipelined + 1, index * pipelined)
  end
  -- wrk asks for a delay only where the function exists.
  if most > 0 then
    math.randomseed(1)
    function delay() return math.random(least, most) end
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"p999":%d,"max":%d,' ..
      '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    latency.max, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
