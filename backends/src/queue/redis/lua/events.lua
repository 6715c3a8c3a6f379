--[[
  What the scripts of events share. Prepended to each of them, after common.lua.

  `exprsn:events` is the stream of all events; each subscribing service has a consumer group of its name on it.
  `exprsn:subscriptions` holds for each service what it wants: topics and attempts, in JSON.
  What a group reads becomes a job of `bull:events@<service>:` (BullMQ allows no colon in a name) and is acknowledged in the same script: between the two
  nothing can get lost or doubled, and retries, backoff, dead letters and leases are the queue's.
]]
local STREAM, SUBSCRIPTIONS = "exprsn:events", "exprsn:subscriptions"
local READ_MAX, STALE_MS = 1000, 60000

local function covers(pattern, topic)
  if string.sub(pattern, -1) == "*" then
    return string.sub(topic, 1, #pattern - 1) == string.sub(pattern, 1, -2)
  end
  return pattern == topic
end

-- The attempts of the most specific subscription to `topic`; nil where there is none.
local function attempts_of(wanted, topic)
  local best, attempts = -1, nil
  for _, subscription in ipairs(wanted) do
    if #subscription.topic > best and covers(subscription.topic, topic) then
      best, attempts = #subscription.topic, subscription.attempts
    end
  end
  return attempts
end

-- The attributes of an entry; nil where somebody else wrote something that is no event.
local function event_of(entry)
  local fields = {}
  for at = 1, #entry[2], 2 do
    fields[entry[2][at]] = entry[2][at + 1]
  end
  for _, name in ipairs({ "id", "source", "topic", "time", "data" }) do
    if not fields[name] then
      return nil
    end
  end
  return tonumber(fields.time) and fields or nil
end

local JOB_KEYS = { lock = true, logs = true, dependencies = true, processed = true, failed = true, unsuccessful = true }

-- The id of a delivery: the event's, unless a key that hangs on another job has that name (as `kept_id` in job.rs).
local function delivery_id(event)
  local id = event.source .. "/" .. event.id
  local ending = string.match(id, ":(%a+)~*$")
  return ending and JOB_KEYS[ending] and id .. "~" or id
end

-- A delivery of an event as a job of the subscriber's queue; false where that is full.
local function deliver(service, wanted, event, pending_max)
  local attempts = attempts_of(wanted, event.topic)
  if not attempts then
    return true
  end
  local p = "bull:events@" .. service .. ":"
  ensure_queue(p)
  if pending(p) >= pending_max then
    return false
  end
  local own = { "x-ours", 1, "x-attempts", 1, "x-origin", event.source }
  for _, name in ipairs({ "subject", "trace" }) do
    if event[name] then
      own[#own + 1] = "x-" .. name
      own[#own + 1] = event[name]
    end
  end
  local id = delivery_id(event)
  local job = { id = id, name = event.topic, delay = 0, priority = 0, own = own, opts = { jobId = id, attempts = attempts } }
  add(p, job, event.data, event.time)
  return true
end

-- Takes what is in the stream for one service into its queue: first what somebody read and did not acknowledge, then what
-- nobody has read. Answers how many deliveries its full queue refused, and whether it got any.
local function pull(service, pending_max)
  local wanted = decoded(call("HGET", SUBSCRIPTIONS, service))
  local missed, got = 0, false
  local function take(entries)
    for _, entry in ipairs(entries) do
      if entry and entry[2] then
        local event = event_of(entry)
        if event and attempts_of(wanted, event.topic) then
          if deliver(service, wanted, event, pending_max) then
            got = true
          else
            missed = missed + 1
          end
        end
        call("XACK", STREAM, service, entry[1])
      end
    end
  end
  local stale = redis.pcall("XAUTOCLAIM", STREAM, service, "exprsn", STALE_MS, "0-0", "COUNT", READ_MAX)
  if stale.err then
    -- Somebody has removed the stream or the group: what is in the stream is delivered, as far as it was not yet.
    call("XGROUP", "CREATE", STREAM, service, "0", "MKSTREAM")
  else
    take(stale[2])
  end
  repeat
    local read = call("XREADGROUP", "GROUP", service, "exprsn", "COUNT", READ_MAX, "STREAMS", STREAM, ">")
    local entries = read and read[1] and read[1][2] or {}
    take(entries)
  until #entries < READ_MAX
  return missed, got
end

