import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.StringWriter;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import javax.xml.catalog.CatalogFeatures;
import javax.xml.catalog.CatalogManager;
import javax.xml.transform.stream.StreamSource;
import javax.xml.validation.Schema;
import javax.xml.validation.SchemaFactory;
import javax.xml.validation.Validator;
import net.sf.saxon.s9api.Processor;
import net.sf.saxon.s9api.QName;
import net.sf.saxon.s9api.XPathCompiler;
import net.sf.saxon.s9api.XdmDestination;
import net.sf.saxon.s9api.XdmItem;
import net.sf.saxon.s9api.XdmNode;
import net.sf.saxon.s9api.Xslt30Transformer;
import net.sf.saxon.s9api.XsltExecutable;
import org.xml.sax.ErrorHandler;
import org.xml.sax.SAXParseException;

// Judges XML files for tests. It reads one order a line, fields separated by
// tabs: "xsd SCHEMA CATALOG FILE" (CATALOG may be "-") or "sch RULES FILE". It
// answers with one line a fault and a line "." at the end.
public class Judge {
    private final Map<String, Schema> schemas = new HashMap<>();
    private final Map<String, XsltExecutable> rules = new HashMap<>();
    private final Processor saxon = new Processor(false);

    public static void main(String[] args) throws Exception {
        Judge judge = new Judge();
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            String[] order = line.split("\t");
            List<String> faults;
            try {
                faults = order[0].equals("xsd") ? judge.xsd(order[1], order[2], order[3]) : judge.sch(order[1], order[2]);
            } catch (Exception e) {
                faults = List.of("judge: " + e);
            }
            for (String f : faults) {
                out.println(f.replaceAll("\\s+", " "));
            }
            out.println(".");
        }
    }

    private Schema schema(String file, String catalog) throws Exception {
        Schema known = schemas.get(file);
        if (known != null) {
            return known;
        }
        SchemaFactory factory = SchemaFactory.newInstance("http://www.w3.org/2001/XMLSchema", "org.apache.xerces.jaxp.validation.XMLSchemaFactory", null);
        if (!catalog.equals("-")) {
            CatalogFeatures features = CatalogFeatures.builder().with(CatalogFeatures.Feature.RESOLVE, "continue").build();
            factory.setResourceResolver(CatalogManager.catalogResolver(features, new File(catalog).toURI()));
        }
        Schema made = factory.newSchema(new StreamSource(new File(file)));
        schemas.put(file, made);
        return made;
    }

    private List<String> xsd(String file, String catalog, String message) throws Exception {
        Validator v = schema(file, catalog).newValidator();
        List<String> faults = new ArrayList<>();
        v.setErrorHandler(new ErrorHandler() {
            public void warning(SAXParseException e) {}
            public void error(SAXParseException e) { faults.add(e.getLineNumber() + ": " + e.getMessage()); }
            public void fatalError(SAXParseException e) throws SAXParseException { throw e; }
        });
        try {
            v.validate(new StreamSource(new File(message)));
        } catch (SAXParseException e) {
            faults.add(e.getLineNumber() + ": " + e.getMessage());
        }
        return faults;
    }

    private XsltExecutable rulesOf(String file) throws Exception {
        XsltExecutable known = rules.get(file);
        if (known != null) {
            return known;
        }
        URL pipeline = Judge.class.getClassLoader().getResource("xslt/2.0/pipeline-for-svrl.xsl");
        Xslt30Transformer compile = saxon.newXsltCompiler().compile(new StreamSource(pipeline.openStream(), pipeline.toString())).load30();
        XdmDestination compiled = new XdmDestination();
        compile.transform(new StreamSource(new File(file)), compiled);
        XsltExecutable made = saxon.newXsltCompiler().compile(compiled.getXdmNode().asSource());
        rules.put(file, made);
        return made;
    }

    private List<String> sch(String file, String message) throws Exception {
        XdmDestination report = new XdmDestination();
        rulesOf(file).load30().transform(new StreamSource(new File(message)), report);
        XPathCompiler xpath = saxon.newXPathCompiler();
        xpath.declareNamespace("svrl", "http://purl.oclc.org/dsdl/svrl");
        List<String> faults = new ArrayList<>();
        for (XdmItem item : xpath.evaluate("//svrl:failed-assert", report.getXdmNode())) {
            XdmNode n = (XdmNode) item;
            faults.add(n.getAttributeValue(new QName("id")) + " at " + n.getAttributeValue(new QName("location")));
        }
        return faults;
    }
}
