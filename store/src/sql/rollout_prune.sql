DELETE FROM rollout_entry
WHERE cluster = $1
    AND version <= (SELECT max(version) FROM rollout_entry WHERE cluster = $1) - $2;
