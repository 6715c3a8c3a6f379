--[[
  How many jobs of a queue are in which state.

  KEYS[1]  the queue's prefix

  Answers {waiting, delayed, prioritized, active, completed, failed, paused (0 or 1)}.
]]
local p = KEYS[1]
return {
  call("LLEN", p .. "wait") + call("LLEN", p .. "paused"),
  call("ZCARD", p .. "delayed"),
  call("ZCARD", p .. "prioritized"),
  call("LLEN", p .. "active"),
  call("ZCARD", p .. "completed"),
  call("ZCARD", p .. "failed"),
  is_paused(p) and 1 or 0,
}
