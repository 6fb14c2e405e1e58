INSERT INTO rollout_entry (cluster, version, id, rollout, state, body, at_us)
VALUES ($1, $2, $3, $4, $5, $6, $7);
