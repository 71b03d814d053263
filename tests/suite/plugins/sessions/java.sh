cat >A.java <<'END'
import java.util.stream.IntStream;
import java.util.zip.CRC32;
public class A {
    static native int twice(int n);
    public static void main(String[] arguments) throws Exception {
        System.out.println(IntStream.range(0, 1000).parallel().sum());
        Thread[] threads = new Thread[4];
        for (int i = 0; i < 4; i++) (threads[i] = new Thread(() -> new CRC32().update(1))).start();
        for (Thread thread : threads) thread.join();
        System.out.println(java.net.InetAddress.getByName("127.0.0.1"));
        System.load(System.getProperty("user.dir") + "/libtwice.so");
        System.out.println(twice(21));
        try { System.loadLibrary("nothing"); } catch (UnsatisfiedLinkError e) { System.out.println("no such library"); }
        try { ((Object) null).toString(); } catch (NullPointerException e) { System.out.println("null"); }
    }
}
END
echo 'int Java_A_twice(void *e, void *c, int n) { return 2 * n; }' | gcc -shared -fPIC -x c -o libtwice.so -
javac A.java && java A && java -Xint -XX:+UseSerialGC A
