-- wrk's requests: pushes to a thousand groups. BODY is the body's size in bytes, CLOSE=1 ends each connection.
local size = tonumber(os.getenv("BODY") or "200")
local body = string.rep("some_metric{label=\"value\"} 3.14159\n", math.ceil(size / 35)):sub(1, size - 1) .. "\n"
local headers = {["Content-Type"] = "text/plain"}
if os.getenv("CLOSE") == "1" then headers["Connection"] = "close" end
local requests, number = {}, 0

init = function()
  for group = 1, 1000 do
    requests[group] = wrk.format("POST", "/metrics/job/batch_" .. group .. "/instance/host-" .. group, headers, body)
  end
end

request = function()
  number = number % 1000 + 1
  return requests[number]
end
