//! The catalog of an empty cluster: the databases `mysql` and `test`.

use super::infoschema::Catalog;
use super::model::{Change, DatabaseId, DatabaseInfo};
use crate::Result;
use rutile_expr::types::Collation;

/// Ids below this one are for what is created here.
const FIRST_USER_ID: i64 = 100;
const MYSQL_DATABASE: DatabaseId = DatabaseId(1);
const TEST_DATABASE: DatabaseId = DatabaseId(2);

/// Creates the databases, unless another server just did.
pub async fn create(catalog: &Catalog) -> Result<()> {
    catalog
        .change(|schema, ids| {
            if schema.version() > 0 {
                return Ok(Vec::new());
            }
            ids.skip_to(FIRST_USER_ID);
            let database = |id, name: &str| {
                Change::PutDatabase(DatabaseInfo { id, name: name.into(), collation: Collation::DEFAULT })
            };
            Ok(vec![database(MYSQL_DATABASE, "mysql"), database(TEST_DATABASE, "test")])
        })
        .await?;
    Ok(())
}
