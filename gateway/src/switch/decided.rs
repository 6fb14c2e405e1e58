//! What a look from outside says of a configuration: where its `active` counts no more.

use super::machine::Record;
use crate::snapshot::colour_name;
use hub_config::runtime::Config;
use hub_store::Embedded;

/// The clusters of which a rollout has decided that another colour is active than the file says, as
/// sentences. Empty, too, where the store cannot be read without changing it. Blocks.
pub fn without_effect(config: &Config) -> Vec<String> {
    let directory = config.store_directory.as_deref();
    let entries = directory.and_then(Embedded::peek).unwrap_or_default();
    let mut told = Vec::new();
    for cluster in &config.clusters {
        let mut entries = entries.iter();
        let newest = entries.find(|entry| entry.cluster == cluster.name);
        let record = newest.and_then(|entry| serde_json::from_str::<Record>(&entry.body).ok());
        // One that never moved traffic has decided nothing.
        let Some(record) = record.filter(|record| record.epoch > 0) else {
            continue;
        };
        let active = record.routing.active;
        if active != cluster.active {
            let (name, file, active) = (
                &cluster.name,
                colour_name(cluster.active),
                colour_name(active),
            );
            told.push(format!(
                "cluster {name:?}: active = {file:?} moves nobody: a rollout has decided that {active} is active, and `hubctl rollout start {name}` is what changes it"
            ));
        }
    }
    told
}
