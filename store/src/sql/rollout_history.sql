SELECT cluster, version, id, rollout, state, body, at_us
FROM rollout_entry
WHERE cluster = $1 AND version < $2
ORDER BY version DESC
LIMIT $3;
