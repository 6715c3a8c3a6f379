--[[
  The end of a job, and how long it is kept. Prepended to scripts that end jobs, after flow.lua.
]]

-- How many finished jobs of a kind are kept and for how many seconds, by the job's own wish or the queue's.
local function kept(p, key, option, default_name, default)
  local keep = setting(p, default_name, default)
  if call("HEXISTS", key, "x-ours") == 1 then
    return keep, nil
  end
  local opts = decoded(call("HGET", key, "opts"))
  local wish = opts[option]
  if wish == true then
    return 0, nil
  elseif wish == false then
    return nil, nil
  elseif type(wish) == "number" then
    return wish, nil
  elseif type(wish) == "table" then
    return tonumber(wish.count), tonumber(wish.age)
  end
  return keep, nil
end

-- Removes the oldest of `set` beyond `count` and those older than `age` seconds.
local function retain(p, set, count, age, now)
  local function remove(ids)
    for _, id in ipairs(ids) do
      forget(p, id)
      call("ZREM", p .. set, id)
    end
  end
  if age then
    remove(call("ZRANGEBYSCORE", p .. set, "-inf", tonumber(now) - age * 1000, "LIMIT", 0, 1000))
  end
  if count and count >= 0 then
    remove(call("ZREVRANGE", p .. set, count, count + 999))
  end
end

-- Ends a job that has left the active list. `set` is "completed" or "failed".
local function finish(p, id, set, now, field, value)
  local key = p .. id
  local option = set == "completed" and "removeOnComplete" or "removeOnFail"
  local count, age = kept(p, key, option, "keep_" .. set, set == "completed" and 1000 or 10000)
  call("HDEL", key, "defa", set == "completed" and "failedReason" or "returnvalue")
  if value then
    call("HSET", key, field, value)
  end
  call("HSET", key, "finishedOn", now)
  tell_parent(key, set, value, now)
  end_deduplication(p, id)
  call("ZADD", p .. set, now, id)
  emit(p, set, "jobId", id, field, value or "null", "prev", "active")
  retain(p, set, count, age, now)
end

