--[[
  What the scripts of a queue share. Prepended to each of them.

  `p` is a queue's prefix, such as `bull:timeline-fanout:`; keys below it are BullMQ's, but for `p .. "exprsn"`: the
  defaults of the queue's jobs. Times are milliseconds since the Unix epoch and are given by the caller, except those of
  locks, whose end must come also when no caller is left.

  Fields of a job's hash that begin with `x-` are ours; BullMQ leaves them alone.
]]
local call = redis.call

local SCORES_PER_MS = 0x1000 -- BullMQ keeps 4,096 delayed jobs of one millisecond in order.
local SCORES_PER_PRIORITY = 0x100000000

local function setting(p, name, default)
  return tonumber(call("HGET", p .. "exprsn", name)) or default
end

-- What a JSON text holds; an empty table for what is no object. Others write options too, and an error in the middle of a
-- script would leave its first half done.
local function decoded(text)
  local good, value = pcall(cjson.decode, text or "{}")
  return good and type(value) == "table" and value or {}
end

local function is_paused(p)
  return call("HEXISTS", p .. "meta", "paused") == 1
end

-- Makes the queue known to BullMQ and to us.
local function ensure_queue(p)
  if call("HSETNX", p .. "meta", "opts.maxLenEvents", 10000) == 1 then
    call("HSETNX", p .. "meta", "version", "bullmq:5.0.0")
  end
  call("SADD", "exprsn:queues", string.sub(p, 6, -2))
end

local function emit(p, event, ...)
  local length = call("HGET", p .. "meta", "opts.maxLenEvents") or 10000
  call("XADD", p .. "events", "MAXLEN", "~", length, "*", "event", event, ...)
end

-- Tells one waiting BullMQ worker that there is something to take.
local function mark(p)
  if not is_paused(p) then
    call("ZADD", p .. "marker", 0, "0")
  end
end

-- When the next delayed job is due; nil where there is none.
local function next_due(p)
  local first = call("ZRANGE", p .. "delayed", 0, 0, "WITHSCORES")
  if first[2] then
    return math.floor(tonumber(first[2]) / SCORES_PER_MS)
  end
end

local function mark_delayed(p)
  local due = next_due(p)
  if due then
    call("ZADD", p .. "marker", due, "1")
  end
end

-- `end` is "LPUSH" for the end of the line and "RPUSH" for its front.
local function push(p, side, id)
  call(side, is_paused(p) and p .. "paused" or p .. "wait", id)
end

local function prioritise(p, id, priority)
  local turn = call("INCR", p .. "pc") % SCORES_PER_PRIORITY
  call("ZADD", p .. "prioritized", priority * SCORES_PER_PRIORITY + turn, id)
end

-- Puts a job at the end of the line of its priority.
local function enqueue(p, id, priority)
  if priority == 0 then
    push(p, "LPUSH", id)
  else
    prioritise(p, id, priority)
  end
  mark(p)
end

-- Puts a job that has left the active ones back to the front of the line, or to its old place among the prioritized.
local function put_back(p, id)
  local score = call("HGET", p .. id, "x-score")
  if score then
    call("ZADD", p .. "prioritized", score, id)
  else
    push(p, "RPUSH", id)
  end
  mark(p)
  emit(p, "waiting", "jobId", id, "prev", "active")
end

-- Puts a job among the delayed ones, after those of the same millisecond.
local function delay(p, id, due)
  local low, high = due * SCORES_PER_MS, (due + 1) * SCORES_PER_MS - 1
  local last = call("ZREVRANGEBYSCORE", p .. "delayed", high, low, "WITHSCORES", "LIMIT", 0, 1)
  local score = last[2] and math.min(tonumber(last[2]) + 1, high) or low
  call("ZADD", p .. "delayed", score, id)
  emit(p, "delayed", "jobId", id, "delay", string.format("%.0f", due))
  mark_delayed(p)
end

local function pending(p)
  return call("LLEN", p .. "wait") + call("LLEN", p .. "paused") + call("ZCARD", p .. "delayed")
    + call("ZCARD", p .. "prioritized")
end

-- Lets another job have the id by which BullMQ knows a job for a duplicate, unless that has a time of its own to end.
local function end_deduplication(p, id)
  local name = call("HGET", p .. id, "deid")
  if name then
    local key = p .. "de:" .. name
    if call("GET", key) == id and call("PTTL", key) == -1 then
      call("DEL", key)
    end
  end
end

-- Removes a job's hash and what hangs on it.
local function forget(p, id)
  local key = p .. id
  end_deduplication(p, id)
  call("DEL", key, key .. ":lock", key .. ":logs", key .. ":dependencies", key .. ":processed", key .. ":failed",
    key .. ":unsuccessful")
end

-- What a job gets from its queue where it says nothing; written into its options, so that BullMQ's workers know it too.
local function with_defaults(p, opts)
  if not opts.attempts then
    opts.attempts = setting(p, "attempts", 3)
  end
  if not opts.backoff then
    opts.backoff = {
      type = call("HGET", p .. "exprsn", "backoff") or "exponential",
      delay = setting(p, "backoff_ms", 1000),
    }
  end
  opts.removeOnComplete = { count = setting(p, "keep_completed", 1000) }
  opts.removeOnFail = { count = setting(p, "keep_failed", 10000) }
  return cjson.encode(opts)
end

-- Adds a job unless the queue holds its id; answers whether it did.
-- `job`: id, name, delay, priority, opts, and `own`: names and values of our fields.
local function add(p, job, data, now)
  local key = p .. job.id
  if call("EXISTS", key) == 1 then
    emit(p, "duplicated", "jobId", job.id)
    return false
  end
  -- BullMQ numbers jobs that bring no id by this counter, so it must be past any number that is an id.
  local number = string.match(job.id, "^%d+$") and tonumber(job.id) or 0
  if call("INCR", p .. "id") < number and number < 2 ^ 53 then
    call("SET", p .. "id", string.format("%.0f", number))
  end
  call("HSET", key, "name", job.name, "data", data, "opts", with_defaults(p, job.opts), "timestamp", now, "delay",
    job.delay, "priority", job.priority, unpack(job.own))
  emit(p, "added", "jobId", job.id, "name", job.name)
  if job.delay > 0 then
    delay(p, job.id, tonumber(now) + job.delay)
  else
    enqueue(p, job.id, job.priority)
    emit(p, "waiting", "jobId", job.id)
  end
  return true
end

-- Lets delayed jobs that are due join the end of the line, at most 1,000.
local function promote(p, now)
  local due = call("ZRANGEBYSCORE", p .. "delayed", 0, (tonumber(now) + 1) * SCORES_PER_MS - 1, "LIMIT", 0, 1000)
  for _, id in ipairs(due) do
    call("ZREM", p .. "delayed", id)
    call("HSET", p .. id, "delay", 0)
    enqueue(p, id, tonumber(call("HGET", p .. id, "priority")) or 0)
    emit(p, "waiting", "jobId", id, "prev", "delayed")
  end
end

