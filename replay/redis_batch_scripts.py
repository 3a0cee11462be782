"""The Lua scripts that hand out a table's batches. Its keys are in redis_table_scripts.py."""

from replay.redis_scripts import Script
from replay.redis_table_scripts import TABLE

# What a batch that was taken is made of, and what becomes of it.
_BATCHES = (
    TABLE
    + """
local function members(batch)
  local indices = {}
  local draws = redis.call('HGET', batches, batch)
  for index in string.gmatch(string.match(draws, '^[^|]*'), '%d+') do
    indices[#indices + 1] = tonumber(index)
  end
  return indices
end
local function undo(batch)
  for _, index in ipairs(members(batch)) do
    local score = score_of(index)
    if max_times > 0 and score ~= 0 then
      redis.call('HINCRBY', times, text(index), -1)
      if score < 0 then
        set_score(index, -score)
        available = available + 1
      end
    end
  end
  redis.call('HDEL', batches, batch)
  if queue then samples = samples - batch_size end
  changed = true
end
local function consume(before)
  if not accounted or before <= consumed then return end
  consumed, changed = before, true
  local done = false
  for _, batch in ipairs(redis.call('HKEYS', batches)) do
    if tonumber(batch) < before then
      done = true
      local indices = max_times > 0 and members(batch) or {}
      redis.call('HDEL', batches, batch)
      for _, index in ipairs(indices) do
        local score = score_of(index)
        if score ~= 0 then
          local past = redis.call('HINCRBY', times_consumed, text(index), 1)
          local all = tonumber(redis.call('HGET', times, text(index)))
          if score < 0 and past == all then remove(index) end
        end
      end
    end
  end
  if done then publish('samples') end
end
"""
)

# ARGV: rules; 14 consumed batches. Returns the number of the new stream.
OPEN_STREAM = Script(
    _BATCHES
    + """
local before = tonumber(ARGV[14])
if accounted then
  if before < consumed then
    for _, batch in ipairs(redis.call('HKEYS', batches)) do undo(batch) end
  end
  consumed = math.min(consumed, before)
  consume(before)
end
if prioritised then
  local updated = tonumber(redis.call('HGET', its, 'updated') or -1)
  redis.call('HSET', its, 'updated', math.min(updated, before - 1))
end
if not queue then samples = before * batch_size end
changed = true
save()
publish('samples')
publish('episodes')
return redis.call('HINCRBY', its, 'stream', 1)
"""
)

_STREAM = (
    _BATCHES
    + """
if numbers('stream') ~= tonumber(ARGV[14]) then return {'SUPERSEDED', tail, head} end
local batch = tonumber(ARGV[15])
"""
)

# ARGV: rules; 14 stream, 15 batch, 16 consumed batches, 17 how many batches at most. Returns {answer, tail,
# head} and for 'GRANTED' how many, for 'AGAIN' the draws as text, for 'CHOOSE' the scores from tail on,
# env_steps and total.
RESERVE = Script(
    _STREAM
    + """
local most = tonumber(ARGV[17])
consume(tonumber(ARGV[16]))
local function drop_old()
  local fresh, dropped, trained = 0, 0, math.max(1, batch)
  for index = tail, head - 1 do
    local score = score_of(index)
    if score > 0 and math.abs(trained - math.max(1, score - 1)) > max_age then
      remove(index)
      dropped = dropped + 1
    elseif score > 0 then
      fresh = fresh + 1
    end
    if fresh == batch_size then break end
  end
  if dropped > 0 then
    redis.call('HINCRBY', its, 'dropped', dropped)
    publish('samples')
  end
end

local draws = accounted and redis.call('HGET', batches, text(batch))
if draws then
  for _, index in ipairs(members(text(batch))) do
    if draws and score_of(index) == 0 then
      undo(text(batch))
      draws = false
    end
  end
end
if draws then
  if most > 0 and not queue then count(batch) end -- opening the stream took it back
  save()
  return {most > 0 and 'AGAIN' or 'WAIT', tail, head, draws}
end
if most > 0 and max_age >= 0 then drop_old() end
if not (most > 0 and is_due(batch)) then
  save()
  return {(get('env_steps') >= total and not may_sample()) and 'END' or 'WAIT', tail, head}
end
if accounted then
  save()
  local view = redis.call('GETRANGE', scores, (tail - base) * 8, (head - base) * 8 - 1)
  return {'CHOOSE', tail, head, view, get('env_steps'), total}
end
local granted = 0
while granted < most and is_due(batch + granted) do
  count(batch + granted)
  granted = granted + 1
end
save()
return {'GRANTED', tail, head, granted}
"""
)

# ARGV: rules; 14 stream, 15 batch, 16 draws as text. Returns {'TAKEN'|'CHANGED'}.
TAKE = Script(
    _STREAM
    + """
local field = text(batch)
local held = redis.call('HGET', batches, field)
if held then return {held == ARGV[16] and 'TAKEN' or 'CHANGED'} end
if not is_due(batch) then return {'CHANGED'} end
redis.call('HSET', batches, field, ARGV[16])
for _, index in ipairs(members(field)) do
  if score_of(index) <= 0 then
    redis.call('HDEL', batches, field)
    return {'CHANGED'}
  end
end
if max_times > 0 then
  for _, index in ipairs(members(field)) do
    if redis.call('HINCRBY', times, text(index), 1) == max_times then
      set_score(index, -score_of(index))
      available = available - 1
    end
  end
end
count(batch)
save()
return {'TAKEN'}
"""
)
