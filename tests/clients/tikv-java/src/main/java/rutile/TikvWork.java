package rutile;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.tikv.common.BytePairWrapper;
import org.tikv.common.ByteWrapper;
import org.tikv.common.TiConfiguration;
import org.tikv.common.TiSession;
import org.tikv.common.exception.RawCASConflictException;
import org.tikv.common.util.ConcreteBackOffer;
import org.tikv.kvproto.Kvrpcpb;
import org.tikv.raw.RawKVClient;
import org.tikv.shade.com.google.protobuf.ByteString;
import org.tikv.txn.KVClient;
import org.tikv.txn.TwoPhaseCommitter;

/** Drives a cluster through the public Java client of TiKV. Its argument is the address of the placement driver. */
public final class TikvWork {
    private static ByteString bytes(String text) {
        return ByteString.copyFromUtf8(text);
    }

    private static void ensure(boolean ok, String what) {
        if (!ok) {
            throw new AssertionError(what);
        }
    }

    private static ByteString key(int i) {
        return bytes(String.format("java%05d", i));
    }

    private static void raw(String pd) throws Exception {
        TiConfiguration conf = TiConfiguration.createRawDefault(pd);
        conf.setEnableAtomicForCAS(true);
        try (TiSession session = TiSession.create(conf); RawKVClient client = session.createRawClient()) {
            client.put(bytes("j1"), bytes("v1"));
            ensure(client.get(bytes("j1")).equals(Optional.of(bytes("v1"))), "get");
            ensure(!client.get(bytes("none")).isPresent(), "get of nothing");
            Map<ByteString, ByteString> pairs = new HashMap<>();
            List<ByteString> keys = new ArrayList<>();
            for (int i = 0; i < 1500; i++) {
                pairs.put(key(i), bytes("value" + i));
                keys.add(key(i));
            }
            client.batchPut(pairs);
            ensure(client.batchGet(keys).size() == 1500, "batch get");
            List<Kvrpcpb.KvPair> found = client.scan(key(0), bytes("javb"));
            ensure(found.size() == 1500 && found.get(9).getKey().equals(key(9)), "scan of " + found.size());
            ensure(client.scan(key(0), 1200).size() == 1200, "scan with a limit");
            client.delete(key(0));
            client.deleteRange(key(1), key(600));
            ensure(client.scan(key(0), bytes("javb")).size() == 900, "scan after removal");
            client.compareAndSet(bytes("cas"), Optional.empty(), bytes("1"));
            try {
                client.compareAndSet(bytes("cas"), Optional.of(bytes("2")), bytes("3"));
                ensure(false, "CAS of another value");
            } catch (RawCASConflictException conflict) {
                ensure(conflict.getPrevValue().equals(Optional.of(bytes("1"))), "CAS tells the value");
            }
            ensure(client.putIfAbsent(bytes("cas"), bytes("4")).equals(Optional.of(bytes("1"))), "put if absent");
            client.deleteRange(bytes("cas"), bytes("k"));
        }
    }

    private static void transactions(String pd) throws Exception {
        try (TiSession session = TiSession.create(TiConfiguration.createDefault(pd));
                KVClient reader = session.createKVClient()) {
            long before = session.getTimestamp().getVersion();
            List<BytePairWrapper> others = new ArrayList<>();
            List<ByteWrapper> names = new ArrayList<>();
            for (int i = 1; i < 300; i++) {
                others.add(new BytePairWrapper(key(i).toByteArray(), ("value" + i).getBytes()));
                names.add(new ByteWrapper(key(i).toByteArray()));
            }
            long start = session.getTimestamp().getVersion();
            byte[] primary = key(0).toByteArray();
            try (TwoPhaseCommitter committer = new TwoPhaseCommitter(session, start)) {
                committer.prewritePrimaryKey(ConcreteBackOffer.newCustomBackOff(5000), primary, "value0".getBytes());
                committer.prewriteSecondaryKeys(primary, others.iterator(), 5000);
                long commit = session.getTimestamp().getVersion();
                committer.commitPrimaryKey(ConcreteBackOffer.newCustomBackOff(5000), primary, commit);
                committer.commitSecondaryKeys(names.iterator(), commit, 5000);
            }
            long after = session.getTimestamp().getVersion();
            ensure(reader.get(key(7), after).equals(bytes("value7")), "get");
            ensure(reader.get(key(7), before).isEmpty(), "get before the commit");
            ensure(reader.scan(key(0), bytes("javb"), after).size() == 300, "scan");
            // Half a transaction: whoever reads its keys finishes it once it has expired.
            long lost = session.getTimestamp().getVersion();
            try (TwoPhaseCommitter committer = new TwoPhaseCommitter(session, lost, 100)) {
                committer.prewritePrimaryKey(ConcreteBackOffer.newCustomBackOff(5000), primary, "lost".getBytes());
            }
            ensure(reader.get(key(0), session.getTimestamp().getVersion()).equals(bytes("value0")), "rolled back");
        }
    }

    public static void main(String[] args) throws Exception {
        raw(args[0]);
        transactions(args[0]);
        System.out.println("java ok");
        System.exit(0);
    }
}
