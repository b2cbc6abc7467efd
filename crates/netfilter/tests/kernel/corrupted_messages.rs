//! Tests that decoders do not panic, and terminate, on arbitrary bytes.

use netfilter::conntrack::Entry;
use netfilter::netlink::Message;
use netfilter::nft::decode::Decoder;
use netfilter::nft::watch::{ChangeFilter, ForeignChanges, TableChange};
use netfilter::nft::{Batch, InstalledTable, Transaction, diff};
use proptest::prelude::*;

use crate::random_tables::any_table_seed;

proptest! {
    #[test]
    fn decoding_of_corrupted_transactions_does_not_panic(
        seed in any_table_seed(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..50),
        last_index in any::<prop::sample::Index>(),
    ) {
        let table = seed.build();
        let mut bytes = Batch::encode(&Transaction::create(&table)).messages.bytes().to_vec();
        for (index, byte) in changes {
            *index.get_mut(&mut bytes) = byte;
        }
        bytes.truncate(last_index.index(bytes.len()) + 1);
        let mut decoder = Decoder::new(&table.id);
        let filter = ChangeFilter { tables: [table.id.clone()].into(), own_port_ids: [1].into() };
        let mut changes = ForeignChanges::default();
        for message in Message::parse_all(&bytes) {
            decoder.add_message(&message);
            filter.add_message(&message, &mut changes);
        }
        // The comparison with an arbitrary table also terminates.
        let installed = decoder.finish();
        let _ = Batch::encode(&diff(installed.as_ref(), &table));
        let _ = installed.map(|InstalledTable { table, .. }| table.check());
    }

    #[test]
    fn decoding_of_arbitrary_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for kind in 0..40 {
            let message = Message { kind: 10 << 8 | kind, flags: 0, seq: 1, port_id: 1, payload: &bytes };
            let _ = TableChange::parse(&message);
        }
        let _ = Entry::parse(&bytes);
    }
}
