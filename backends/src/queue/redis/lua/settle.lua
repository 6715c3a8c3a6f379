--[[
  Records what became of leased jobs and hands out the next ones (BullMQ's moveToFinished, retryJob, moveToDelayed and
  moveToActive).

  KEYS[1]  the queue's prefix
  ARGV[1]  now
  ARGV[2]  jobs to hand out at most; -1 where none are asked for
  ARGV[3]  the token of their locks
  ARGV[4]  how long these last, in milliseconds
  ARGV[5]  bytes of data after which no further job is handed out
  ARGV[6…] for each outcome: "completed", "failed", "fatal" or "released"; the job's id; its token; its value or reason,
           with a first letter "=" where there is one

  An outcome whose lock is another's, or whose job was returned to the line, is ignored.

  Answers {jobs, more (0 or 1), when there may be something to take next or -1, the queue's defaults}; a job is {id, its hash}.
]]
local p, now = KEYS[1], ARGV[1]
local active = p .. "active"

-- Takes a job from the active ones, if the token is that of its lock, or was and nobody has looked for it since: while the
-- server was away the lock may have ended under a worker that has done its job.
local function leave(id, token)
  local lock = p .. id .. ":lock"
  local held = call("GET", lock) or call("HGET", p .. id, "x-token")
  if held ~= token or call("LREM", active, -1, id) == 0 then
    return false
  end
  call("DEL", lock)
  call("HDEL", p .. id, "x-token")
  call("SREM", p .. "stalled", id)
  return true
end

-- The wait before attempt `made` + 1, by the job's own wish or the queue's.
local function backoff(key, made, ours)
  local kind, wait
  local opts = decoded(call("HGET", key, "opts"))
  if ours and call("HEXISTS", key, "x-backoff") == 0 then
    kind = call("HGET", p .. "exprsn", "backoff") or "exponential"
    wait = setting(p, "backoff_ms", 1000)
  elseif type(opts.backoff) == "table" then
    kind, wait = opts.backoff.type, tonumber(opts.backoff.delay) or 0
  else
    kind, wait = "fixed", tonumber(opts.backoff) or 0
  end
  if kind == "exponential" then
    wait = wait * 2 ^ math.min(made - 1, 63)
  end
  return math.min(wait, 366 * 24 * 3600000)
end

-- The attempts that a job has.
local function allowed(key, ours)
  if ours and call("HEXISTS", key, "x-attempts") == 0 then
    return setting(p, "attempts", 3)
  end
  local opts = decoded(call("HGET", key, "opts"))
  return math.max(tonumber(opts.attempts) or 1, 1)
end

-- To the end of the line, or to its front where BullMQ's producer wants the last in first out.
local function line_up(key, id)
  local priority = tonumber(call("HGET", key, "priority")) or 0
  if priority == 0 and decoded(call("HGET", key, "opts")).lifo then
    push(p, "RPUSH", id)
    mark(p)
  else
    enqueue(p, id, priority)
  end
end

local function fail(id, reason, may_retry)
  local key = p .. id
  local ours = call("HEXISTS", key, "x-ours") == 1
  local made = call("HINCRBY", key, "atm", 1)
  call("HSET", key, "failedReason", reason)
  if not may_retry or made >= allowed(key, ours) then
    finish(p, id, "failed", now, "failedReason", reason)
    if may_retry then
      emit(p, "retries-exhausted", "jobId", id, "attemptsMade", made)
    end
    return
  end
  local wait = backoff(key, made, ours)
  if wait > 0 then
    call("HSET", key, "delay", wait)
    delay(p, id, tonumber(now) + wait)
  else
    line_up(key, id)
    emit(p, "waiting", "jobId", id, "prev", "active")
  end
end

local function settle(what, id, token, text)
  if not leave(id, token) then
    return
  end
  local value = string.sub(text, 1, 1) == "=" and string.sub(text, 2) or nil
  if what == "completed" then
    call("HINCRBY", p .. id, "atm", 1)
    finish(p, id, "completed", now, "returnvalue", value)
  elseif what == "released" then
    -- Nothing is counted.
    call("HINCRBY", p .. id, "ats", -1)
    put_back(p, id)
  else
    fail(id, value or "", what == "failed")
  end
end

-- The next job in line, now active; nil where there is none.
local function next_job()
  local id = call("RPOPLPUSH", p .. "wait", active)
  if id then
    call("HDEL", p .. id, "x-score")
    return id
  end
  local first = call("ZPOPMIN", p .. "prioritized")
  if not first[1] then
    call("DEL", p .. "pc")
    return nil
  end
  call("LPUSH", active, first[1])
  call("HSET", p .. first[1], "x-score", first[2])
  return first[1]
end

-- A lease on the job; nil where it has gone, or where BullMQ wants it failed for having stalled too often.
local function begin(id)
  local key = p .. id
  if call("EXISTS", key) == 0 then
    call("LREM", active, -1, id)
    return nil
  end
  local condemned = call("HGET", key, "defa")
  if condemned then
    call("LREM", active, -1, id)
    call("HINCRBY", key, "atm", 1)
    finish(p, id, "failed", now, "failedReason", condemned)
    return nil
  end
  call("SET", key .. ":lock", ARGV[3], "PX", ARGV[4])
  call("HSET", key, "processedOn", now, "x-token", ARGV[3])
  call("HINCRBY", key, "ats", 1)
  emit(p, "active", "jobId", id, "prev", "waiting")
  return call("HGETALL", key)
end

-- The limits that BullMQ's users set for the whole queue: jobs under way at once, and jobs begun in a time.
local limits = call("HMGET", p .. "meta", "concurrency", "max", "duration")
local most, rate, duration = tonumber(limits[1]), tonumber(limits[2]), tonumber(limits[3])

local function is_full()
  return most and call("LLEN", active) >= most
end

-- How long nothing more may begin, in milliseconds; nil where it may.
local function limited()
  if rate and duration and (tonumber(call("GET", p .. "limiter")) or 0) >= rate then
    return math.max(call("PTTL", p .. "limiter"), 1)
  end
end

local function count_begun()
  if rate and duration and call("INCR", p .. "limiter") == 1 then
    call("PEXPIRE", p .. "limiter", duration)
  end
end

local function take(count)
  local jobs, bytes, more = {}, 0, 0
  while #jobs < count and bytes <= tonumber(ARGV[5]) and not is_full() and not limited() do
    local id = next_job()
    if not id then
      return jobs, 0
    end
    local fields = begin(id)
    if fields then
      jobs[#jobs + 1] = { id, fields }
      count_begun()
      bytes = bytes + call("HSTRLEN", p .. id, "data")
    end
  end
  if call("EXISTS", p .. "wait", p .. "prioritized") > 0 and not is_full() and not limited() then
    -- Others may have a hand free.
    mark(p)
    more = 1
  end
  return jobs, more
end

for at = 6, #ARGV, 4 do
  settle(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
end
local count = tonumber(ARGV[2])
local jobs, more, due = {}, 0, nil
if count >= 0 then
  promote(p, now)
  if not is_paused(p) then
    jobs, more = take(count)
  end
  due = next_due(p)
  local wait = limited()
  if wait then
    due = math.min(due or math.huge, tonumber(now) + wait)
  end
end
if #ARGV > 5 and call("EXISTS", p .. "wait", active, p .. "prioritized") == 0 then
  emit(p, "drained")
end
return { jobs, more, due and string.format("%.0f", due) or "-1", call("HGETALL", p .. "exprsn") }
