import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.kafka.tools.AclCommand;

/** Runs kafka-acls for each line of a file, its arguments apart by tabs, without a new Java for each. */
public class Acls {
  public static void main(String[] arguments) throws Exception {
    for (var line : Files.readAllLines(Path.of(arguments[0]))) {
      AclCommand.main(line.split("\t"));
    }
  }
}
