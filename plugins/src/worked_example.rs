//! Refuses requests of user agents that are not welcome.

use crate::{Plugin, PluginContext, Scope, Settings, Step, Verdict};
use hub_core::{Reason, Refusal, RequestView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the kind `block_agents`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How unwelcome user agents start, in any case. 1 to 100 entries.
    pub prefixes: Vec<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct BlockAgents {
    prefixes: Vec<Vec<u8>>,
}

impl Settings for Config {
    type Plugin = BlockAgents;

    fn build(self, _name: &str, scope: &mut Scope) -> Option<BlockAgents> {
        let before = scope.len();
        scope.in_range("prefixes", self.prefixes.len(), 1..=100);
        for (index, prefix) in self.prefixes.iter().enumerate() {
            if prefix.is_empty() {
                let at = format!("prefixes[{index}]");
                scope.add(
                    at,
                    "is empty, which every user agent starts with; remove it",
                );
            }
        }
        (scope.len() == before).then(|| BlockAgents {
            prefixes: self.prefixes.into_iter().map(String::into_bytes).collect(),
        })
    }
}

impl Plugin for BlockAgents {
    fn step(&self) -> Step {
        Step::Request
    }

    fn on_request(&self, request: &RequestView<'_>, _context: &mut PluginContext<'_>) -> Verdict {
        let agent = request.headers.get("user-agent").unwrap_or_default();
        let starts = |prefix: &Vec<u8>| {
            agent
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if self.prefixes.iter().any(starts) {
            return Verdict::Refuse(Refusal::new(Reason::Forbidden).with_detail("unwelcome agent"));
        }
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Request, make};
    use serde_json::json;

    #[test]
    fn unwelcome_agents_are_refused_in_any_case_and_others_pass() {
        let plugin = make::<Config>(json!({ "prefixes": ["BadBot/"] }));
        let verdict = |agent: &str| Request::new().header("User-Agent", agent).verdict(&*plugin);
        assert!(matches!(verdict("badbot/2.0"), Verdict::Refuse(_)));
        assert_eq!(verdict("Mozilla/5.0 BadBot/2.0"), Verdict::Continue);
        assert_eq!(verdict("Bad"), Verdict::Continue);
    }
}
