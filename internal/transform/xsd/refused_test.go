package xsd

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

// refused are parts of a schema that are not supported or not allowed, each on the
// second line of a schema, and a word of what is said of it.
var refused = map[string]string{
	`<xs:override schemaLocation="x.xsd"/>`:                                                                        "<override> is not supported",
	`<xs:redefine schemaLocation="x.xsd"/>`:                                                                        "refers to x.xsd",
	`<xs:import namespace="urn:x" schemaLocation="x.xsd"/>`:                                                        "refers to x.xsd",
	`<xs:element name="e" type="xs:ENTITY"/>`:                                                                      "ENTITY is not supported",
	`<xs:element name="e" type="xs:NOTATION"/>`:                                                                    "NOTATION is not supported",
	`<xs:element name="e" type="xs:dateTimeStamp"/>`:                                                               "dateTimeStamp is not supported",
	`<xs:element name="e" type="T"/>`:                                                                              "names nothing that is declared",
	`<xs:element name="e" type="q:T"/>`:                                                                            "prefix",
	`<xs:element name="e"/><xs:element name="e"/>`:                                                                 "a second time",
	`<xs:element name="e" targetNamespace="urn:x"/>`:                                                               "targetNamespace, which is not supported",
	`<xs:complexType name="T"><xs:assert test="@a"/></xs:complexType>`:                                             "<assert> is not supported",
	`<xs:complexType name="T"><xs:openContent><xs:any/></xs:openContent></xs:complexType>`:                         "<openContent> is not supported",
	`<xs:element name="e"><xs:alternative type="xs:int"/></xs:element>`:                                            "<alternative> is not supported",
	`<xs:complexType name="T"><xs:sequence><xs:any notQName="x"/></xs:sequence></xs:complexType>`:                  "notQName, which is not supported",
	`<xs:complexType name="T"><xs:sequence><xs:all><xs:element name="a"/></xs:all></xs:sequence></xs:complexType>`: "<sequence> holds elements",
	`<xs:complexType name="T"><xs:all><xs:element name="a" maxOccurs="2"/></xs:all></xs:complexType>`:              "once at most",
	`<xs:complexType name="T"><xs:attribute name="a"/><xs:sequence/></xs:complexType>`:                             "<complexType> holds elements",
	`<xs:complexType name="T"><xs:simpleContent><xs:extension base="xs:string"><xs:length value="1"/></xs:extension></xs:simpleContent></xs:complexType>`: "<extension> holds elements",
	`<xs:element name="e" type="xs:int"><xs:annotation><xs:foo/></xs:annotation></xs:element>`:                                                            "<foo> is not supported",
	`<xs:element name="e"><x/></xs:element>`:                     "another namespace",
	`<xs:element name="e">text</xs:element>`:                     "text stands",
	`<xs:element name="e" type="xs:int" fixed="x"/>`:             "is not of its type",
	`<xs:element name="e" type="xs:int" fixed="1" default="1"/>`: "exclude each other",
	`<xs:element name="e" minOccurs="1"/>`:                       "minOccurs, which is not supported",
	`<xs:complexType name="T"><xs:sequence><xs:element name="a" minOccurs="3" maxOccurs="2"/></xs:sequence></xs:complexType>`:                                              "less than minOccurs",
	`<xs:complexType name="T"><xs:sequence><xs:element name="a" maxOccurs=""/></xs:sequence></xs:complexType>`:                                                             "empty maxOccurs",
	`<xs:complexType name="T"><xs:sequence><xs:element ref="e"><xs:simpleType><xs:restriction base="xs:int"/></xs:simpleType></xs:element></xs:sequence></xs:complexType>`: "is a reference",
	`<xs:simpleType name="T"><xs:restriction base="xs:int"><xs:length value="1"/></xs:restriction></xs:simpleType>`:                                                        "not for this type",
	`<xs:simpleType name="T"><xs:restriction base="xs:int"><xs:minInclusive value="2"/><xs:maxInclusive value="1"/></xs:restriction></xs:simpleType>`:                      "no value keeps",
	`<xs:simpleType name="T"><xs:restriction base="xs:byte"><xs:maxInclusive value="128"/></xs:restriction></xs:simpleType>`:                                               "outside those of the base",
	`<xs:simpleType name="T"><xs:restriction base="xs:int"><xs:enumeration value="x"/></xs:restriction></xs:simpleType>`:                                                   "is not of its type",
	`<xs:simpleType name="T"><xs:restriction base="xs:string"><xs:pattern value="[a"/></xs:restriction></xs:simpleType>`:                                                   "not closed",
	`<xs:simpleType name="T"><xs:restriction base="xs:string"><xs:pattern value="(?i)a"/></xs:restriction></xs:simpleType>`:                                                "malformed",
	`<xs:simpleType name="T"><xs:restriction base="xs:string"><xs:pattern value="\p{IsKlingon}"/></xs:restriction></xs:simpleType>`:                                        "unknown",
	`<xs:simpleType name="T"><xs:restriction base="xs:token"><xs:whiteSpace value="preserve"/></xs:restriction></xs:simpleType>`:                                           "looser",
	`<xs:simpleType name="T"><xs:list itemType="xs:IDREFS"/></xs:simpleType>`:                                                                                              "list of lists",
	`<xs:simpleType name="T" final="restriction"><xs:restriction base="xs:int"/></xs:simpleType><xs:simpleType name="U"><xs:restriction base="T"/></xs:simpleType>`:        "final",
	`<xs:element name="e"><xs:key name="k"><xs:selector xpath="a[1]"/><xs:field xpath="@b"/></xs:key></xs:element>`:                                                        "is not supported",
	`<xs:element name="e"><xs:key name="k"><xs:selector xpath="//a"/><xs:field xpath="@b"/></xs:key></xs:element>`:                                                         "is not supported",
	`<xs:element name="e"><xs:keyref name="k" refer="z"><xs:selector xpath="a"/><xs:field xpath="@b"/></xs:keyref></xs:element>`:                                           "refer names no key",
	`<xs:complexType name="T"><xs:choice maxOccurs="unbounded"><xs:element name="a" maxOccurs="500"/></xs:choice></xs:complexType>`:                                        "ambiguous",
	`<xs:complexType name="T"><xs:sequence><xs:element name="a" type="xs:int" minOccurs="0"/><xs:element name="a" type="xs:date"/></xs:sequence></xs:complexType>`:         "two types",
	`<!-- <xs:element name="e"/>`: "cannot be read",
}

func TestRefused(t *testing.T) {
	for part, want := range refused {
		source := "<xs:schema xmlns:xs=\"http://www.w3.org/2001/XMLSchema\">\n" + part + "</xs:schema>"
		_, err := Compile(fstest.MapFS{"s.xsd": {Data: []byte(source)}}, []string{"s.xsd"}, func(string, string) (string, bool) { return "", false })
		var ce *CompileError
		if !errors.As(err, &ce) || ce.File != "s.xsd" || ce.Line != 2 || !strings.Contains(ce.Text, want) {
			t.Errorf("%s: %v, want %q", part, err, want)
		}
	}
}
