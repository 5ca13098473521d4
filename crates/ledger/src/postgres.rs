use crate::{LedgerConfig, LedgerError};
pub(crate) struct Postgres;
impl Postgres {
    pub(crate) async fn open(_c: &LedgerConfig, _o: String) -> Result<crate::sqlite::Sqlite, LedgerError> {
        Err(LedgerError::Config("not yet".into()))
    }
}
