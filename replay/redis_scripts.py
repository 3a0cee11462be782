"""The Lua scripts that make each step of RedisStorage atomic.

Keys, all with the run's prefix:

    run                  hash    run parameters, `spec` (an EnvSpec message)
    state                hash    env_steps weights_session weights_version, and the default table's state
    seqs                 hash    session -> last stored seq
    weights:<id>         string  safetensors; id is "<session> <version>"
    due                  zset    evaluation points that are not reported
    due:weights          hash    point -> id of its weights; absent while it waits for the first ones
    due:leases           hash    point -> when its lease ends, in ms
    results              hash    point -> Evaluation message
    changes              channel names of topics

The default table's keys have the run's prefix, those of others `table:<name>:` behind it;
redis_table_scripts.py lists them.

Numbers of 64 bits (seq, version) are decimal strings of 20 digits, which compare as strings; Lua's numbers
have 53 bits.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Script:
    """A script and the name by which Redis caches it."""

    text: str

    @cached_property
    def sha(self) -> str:
        """The script's SHA-1, as EVALSHA takes it."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# KEYS[1] is the prefix.
NAMES = """
local prefix = KEYS[1]
local function table_prefix(name)
  return name == 'default' and prefix or prefix .. 'table:' .. name .. ':'
end
"""

# A script that finds no run must not begin one: the storage was emptied. A run has total_env_steps.
COMMON = (
    NAMES
    + """
local run, state = prefix .. 'run', prefix .. 'state'
local due, due_weights, due_leases = prefix .. 'due', prefix .. 'due:weights', prefix .. 'due:leases'
local total = tonumber(redis.call('HGET', run, 'total_env_steps'))
if not total then return redis.error_reply('ERR NORUN') end
local function get(field) return tonumber(redis.call('HGET', state, field)) end
local function publish(topic) redis.call('PUBLISH', prefix .. 'changes', topic) end
local function newest_weights()
  local session, version = unpack(redis.call('HMGET', state, 'weights_session', 'weights_version'))
  return session .. ' ' .. version, session, version
end
"""
)

# ARGV: total_env_steps, names of the tables, then what must stay the same: name, what it is in a run that
# does not know it yet, value. Returns name, held and given value of the first that differs.
OPEN_RUN = Script(
    NAMES
    + """
local run, state = prefix .. 'run', prefix .. 'state'
local known = redis.call('HEXISTS', run, 'total_env_steps') == 1
for i = 3, #ARGV, 3 do
  local held = redis.call('HGET', run, ARGV[i]) or (known and ARGV[i + 1]) or ARGV[i + 2]
  if held ~= ARGV[i + 2] then return {ARGV[i], held, ARGV[i + 2]} end
end
for i = 3, #ARGV, 3 do redis.call('HSET', run, ARGV[i], ARGV[i + 2]) end
redis.call('HSET', run, 'total_env_steps', ARGV[1])
redis.call('HSETNX', state, 'env_steps', 0)
redis.call('HSETNX', state, 'weights_session', '')
redis.call('HSETNX', state, 'weights_version', string.rep('0', 20))
for name in string.gmatch(ARGV[2], '%S+') do
  for _, field in ipairs({'head', 'tail', 'bytes', 'samples', 'stream'}) do
    redis.call('HSETNX', table_prefix(name) .. 'state', field, 0)
  end
end
for _, topic in ipairs({'samples', 'episodes', 'weights', 'evaluations'}) do
  redis.call('PUBLISH', prefix .. 'changes', topic)
end
return {}
"""
)

# ARGV: EnvSpec message. Returns the one that is registered.
REGISTER_SPEC = Script(
    COMMON
    + """
redis.call('HSETNX', run, 'spec', ARGV[1])
return redis.call('HGET', run, 'spec')
"""
)

_RELEASE = """
local function release(id)
  if id == newest_weights() then return end
  for _, used in ipairs(redis.call('HVALS', due_weights)) do
    if used == id then return end
  end
  redis.call('UNLINK', prefix .. 'weights:' .. id)
end
"""

# ARGV: session, version, safetensors. Returns the newest version if that is higher, else ''.
PUBLISH_WEIGHTS = Script(
    COMMON
    + _RELEASE
    + """
local old_id, old_session, old_version = newest_weights()
local id = ARGV[1] .. ' ' .. ARGV[2]
if ARGV[1] == old_session and ARGV[2] <= old_version then
  return id == old_id and '' or old_version
end
redis.call('SET', prefix .. 'weights:' .. id, ARGV[3])
redis.call('HSET', state, 'weights_session', ARGV[1], 'weights_version', ARGV[2])
for _, point in ipairs(redis.call('ZRANGE', due, 0, -1)) do
  if redis.call('HSETNX', due_weights, point, id) == 1 then publish('evaluations') end
end
release(old_id)
publish('weights')
return ''
"""
)

# ARGV: lease in ms. Returns {point, id of its weights} or {'', '', ms until a lease ends or -1, 1 if over}.
CLAIM_EVALUATION = Script(
    COMMON
    + """
local time = redis.call('TIME')
local now, wait = time[1] * 1000 + math.floor(time[2] / 1000), -1
local points = redis.call('ZRANGE', due, 0, -1)
for _, point in ipairs(points) do
  local weights = redis.call('HGET', due_weights, point)
  local left = (tonumber(redis.call('HGET', due_leases, point)) or 0) - now
  if weights and left <= 0 then
    redis.call('HSET', due_leases, point, now + tonumber(ARGV[1]))
    return {point, weights}
  elseif weights and (wait < 0 or left < wait) then
    wait = left
  end
end
return {'', '', wait, (get('env_steps') >= total and #points == 0) and 1 or 0}
"""
)

# ARGV: point, Evaluation message. Returns 1 if the point is or was due.
REPORT_EVALUATION = Script(
    COMMON
    + _RELEASE
    + """
if redis.call('HEXISTS', prefix .. 'results', ARGV[1]) == 1 then return 1 end
if not redis.call('ZSCORE', due, ARGV[1]) then return 0 end
local weights = redis.call('HGET', due_weights, ARGV[1])
redis.call('HSET', prefix .. 'results', ARGV[1], ARGV[2])
redis.call('ZREM', due, ARGV[1])
redis.call('HDEL', due_leases, ARGV[1])
redis.call('HDEL', due_weights, ARGV[1])
if weights then release(weights) end
publish('evaluations')
return 1
"""
)
