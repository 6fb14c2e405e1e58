SELECT entry.cluster, entry.version, entry.id, entry.rollout, entry.state, entry.body, entry.at_us
FROM rollout_entry AS entry
JOIN (
    SELECT cluster, max(version) AS version FROM rollout_entry GROUP BY cluster
) AS newest ON newest.cluster = entry.cluster AND newest.version = entry.version
ORDER BY entry.cluster;
