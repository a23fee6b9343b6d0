/* Validates messages with libxml2 and says how long it took: the yardstick of
   benchmarks. It takes a schema file as argument and reads orders from standard
   input: a line "tree N LENGTH" or "stream N LENGTH", then LENGTH bytes of a
   message. It validates the message N times, as a tree or as a stream of events,
   and answers with the nanoseconds of CPU time and whether it was valid. */
#include <libxml/parser.h>
#include <libxml/xmlschemas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void quiet(void *ctx, const char *msg, ...) { (void)ctx; (void)msg; }

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int validate(xmlSchemaPtr schema, int tree, const char *message, int length) {
    xmlSchemaValidCtxtPtr ctx = xmlSchemaNewValidCtxt(schema);
    int fault = 1;
    xmlSchemaSetValidErrors(ctx, quiet, quiet, NULL);
    if (tree) {
        xmlDocPtr doc = xmlReadMemory(message, length, "message.xml", NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
        if (doc) {
            fault = xmlSchemaValidateDoc(ctx, doc);
            xmlFreeDoc(doc);
        }
    } else {
        xmlParserInputBufferPtr in = xmlParserInputBufferCreateMem(message, length, XML_CHAR_ENCODING_NONE);
        fault = xmlSchemaValidateStream(ctx, in, XML_CHAR_ENCODING_NONE, NULL, NULL);
    }
    xmlSchemaFreeValidCtxt(ctx);
    return fault == 0;
}

int main(int argc, char **argv) {
    char mode[16];
    int n, length;
    xmlSetGenericErrorFunc(NULL, quiet);
    xmlSchemaParserCtxtPtr parser = argc == 2 ? xmlSchemaNewParserCtxt(argv[1]) : NULL;
    xmlSchemaPtr schema = NULL;
    if (parser) {
        xmlSchemaSetParserErrors(parser, quiet, quiet, NULL);
        schema = xmlSchemaParse(parser);
    }
    if (!schema) {
        fprintf(stderr, "the schema does not compile\n");
        return 1;
    }
    while (scanf("%15s %d %d", mode, &n, &length) == 3 && getchar() == '\n') {
        char *message = malloc(length);
        if (!message || fread(message, 1, length, stdin) != (size_t)length) return 1;
        int valid = 1;
        long long start = now();
        for (int i = 0; i < n; i++) valid &= validate(schema, strcmp(mode, "tree") == 0, message, length);
        printf("%lld %d\n", now() - start, valid);
        fflush(stdout);
        free(message);
    }
    return 0;
}
