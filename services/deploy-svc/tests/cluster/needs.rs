//! What tests need of a cluster that a real one lacks.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A cluster that may be broken, and an Argo CD that does what a test orders.
    LocalCluster,
}

impl Need {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::LocalCluster => "faults to order",
        }
    }
}
