//! What tests need of a cluster that a cluster of somebody else may lack.

use std::fmt;

/// Words in any order, of those of [`Need::word`], with blanks or commas between them.
const LACKS: &str = "SLIPWAY_TEST_CLUSTER_LACKS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A cluster that may be broken, and an Argo CD that does what a test orders: no cluster of somebody else has it.
    LocalCluster,
    /// A kubelet that pulls images and runs containers, so that logs can be read and Services answer.
    Containers,
    /// A scheduler that heeds node selectors.
    Scheduler,
    /// An API server that takes `metadata.managedFields` from updates.
    ManagedFields,
    /// Pods that report the digests which the test knows: a cluster of somebody else lacks them unless they are given.
    Digests,
}

impl Need {
    /// Those that whoever runs the tests knows of.
    const SAID: [Self; 3] = [Self::Containers, Self::Scheduler, Self::ManagedFields];

    fn word(self) -> &'static str {
        match self {
            Self::LocalCluster => "local-cluster",
            Self::Containers => "containers",
            Self::Scheduler => "scheduler",
            Self::ManagedFields => "managed-fields",
            Self::Digests => "digests",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the cluster lacks.
///
/// # Panics
/// When the environment names what is not known, or says that local-cluster lacks something.
pub(crate) fn lacking(local: bool, digests: bool) -> Vec<Need> {
    let said = std::env::var(LACKS).unwrap_or_default();
    let mut lacking: Vec<Need> = said
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .map(|word| {
            let known = Need::SAID.into_iter().find(|need| need.word() == word);
            known.unwrap_or_else(|| {
                panic!(
                    "{LACKS}: {word:?} is not known; use {:?}",
                    Need::SAID.map(Need::word)
                )
            })
        })
        .collect();
    if local {
        assert!(
            lacking.is_empty(),
            "{LACKS}: local-cluster lacks nothing; unset it"
        );
        return lacking;
    }
    lacking.push(Need::LocalCluster);
    if !digests {
        lacking.push(Need::Digests);
    }
    lacking
}
