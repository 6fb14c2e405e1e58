SELECT coalesce(max(version), 0) FROM rollout_entry WHERE cluster = $1;
