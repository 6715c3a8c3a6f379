--[[
  Delivers messages, each once per id, however often they come while the id is remembered.

  KEYS[1]  exprsn:events
  ARGV[1]  now
  ARGV[2]  deliveries that may wait for a subscriber
  ARGV[3]  how long ids are remembered at least, in milliseconds …
  ARGV[4]  … while there are fewer than these
  ARGV[5…] for each message three: "job", its description in JSON with its queue, its data; or "event", its attributes in
           JSON, its data

  Answers {queues that got jobs, services that missed events, how many each}.
]]
local now, pending_max = ARGV[1], tonumber(ARGV[2])
local queues, published = {}, false
local SEEN, SEEN_BEFORE, SEEN_SINCE = "exprsn:seen", "exprsn:seen:before", "exprsn:seen:since"

-- Two generations of ids are kept. The present one becomes the former when it is old or full.
local since = tonumber(call("GET", SEEN_SINCE))
if not since then
  call("SET", SEEN_SINCE, now)
elseif tonumber(now) - since >= tonumber(ARGV[3]) or call("SCARD", SEEN) >= tonumber(ARGV[4]) / 2 then
  call("UNLINK", SEEN_BEFORE)
  if call("EXISTS", SEEN) == 1 then
    call("RENAME", SEEN, SEEN_BEFORE)
  end
  call("SET", SEEN_SINCE, now)
end

-- Whether this id comes for the first time.
local function is_new(id)
  return call("SISMEMBER", SEEN_BEFORE, id) == 0 and call("SADD", SEEN, id) == 1
end

for at = 5, #ARGV, 3 do
  local kind, head, data = ARGV[at], cjson.decode(ARGV[at + 1]), ARGV[at + 2]
  if kind == "job" then
    local p = "bull:" .. string.gsub(head.queue, ":", "@") .. ":"
    ensure_queue(p)
    if is_new("job " .. head.queue .. "/" .. head.id) and add(p, head, data, now) then
      queues[head.queue] = true
    end
  else
    if is_new("event " .. head.source .. "/" .. head.id) then
      local entry = { "source", head.source, "id", head.id, "topic", head.topic, "time", head.time, "data", data }
      for _, name in ipairs({ "subject", "trace" }) do
        if head[name] then
          entry[#entry + 1] = name
          entry[#entry + 1] = head[name]
        end
      end
      call("XADD", STREAM, "*", unpack(entry))
      published = true
    end
  end
end

local services, missed = {}, {}
if published then
  for _, service in ipairs(call("HKEYS", SUBSCRIPTIONS)) do
    local lost, got = pull(service, pending_max)
    if got then
      queues["events:" .. service] = true
    end
    if lost > 0 then
      services[#services + 1] = service
      missed[#missed + 1] = lost
    end
  end
end
local names = {}
for name in pairs(queues) do
  names[#names + 1] = name
end
table.sort(names)
return { names, services, missed }
