package catalog

// german has the German sentence of every English one that tells what is wrong
// with a form, with the same verbs in the same order. A portal may show them to
// the citizen.
var german = map[string]string{
	"The form cannot be checked.": "Das Formular kann nicht geprüft werden.",
	"The value fits more than one of the alternatives, exactly one is allowed.":    "Der Wert passt zu mehr als einer der Möglichkeiten; genau eine ist erlaubt.",
	"The value is none of the allowed ones.":                                       "Der Wert ist keiner der erlaubten.",
	"The value fits none of the allowed alternatives.":                             "Der Wert passt zu keiner der erlaubten Möglichkeiten.",
	"The field is required and is missing.":                                        "Das Feld ist Pflicht und fehlt.",
	"The field is required because another one is given (%s).":                     "Das Feld ist Pflicht, weil ein anderes angegeben ist (%s).",
	"The field is not allowed here.":                                               "Das Feld ist hier nicht erlaubt.",
	"The value is of type %s, %s is expected.":                                     "Der Wert hat den Typ %s, erwartet wird %s.",
	"The value is none of the %d allowed ones.":                                    "Der Wert ist keiner der %d erlaubten.",
	"The value is not the one allowed.":                                            "Der Wert ist nicht der eine erlaubte.",
	"The value does not have the format %q%s.":                                     "Der Wert hat nicht das Format %q%s.",
	"The value does not match the pattern %s.":                                     "Der Wert passt nicht zum Muster %s.",
	"The text has %d characters, at least %d are needed.":                          "Der Text hat %d Zeichen, nötig sind mindestens %d.",
	"The text has %d characters, at most %d are allowed.":                          "Der Text hat %d Zeichen, erlaubt sind höchstens %d.",
	"The list has %d items, at least %d are needed.":                               "Die Liste hat %d Einträge, nötig sind mindestens %d.",
	"The list has %d items, at most %d are allowed.":                               "Die Liste hat %d Einträge, erlaubt sind höchstens %d.",
	"The items %d and %d of the list are equal, they must differ.":                 "Die Einträge %d und %d der Liste sind gleich; sie müssen sich unterscheiden.",
	"The list lacks an item that it must have.":                                    "Der Liste fehlt ein Eintrag, den sie haben muss.",
	"The list has an item more often than allowed.":                                "Die Liste hat einen Eintrag öfter als erlaubt.",
	"The group has %d fields, at least %d are needed.":                             "Die Gruppe hat %d Felder, nötig sind mindestens %d.",
	"The group has %d fields, at most %d are allowed.":                             "Die Gruppe hat %d Felder, erlaubt sind höchstens %d.",
	"The number is below the least allowed, %v.":                                   "Die Zahl liegt unter der kleinsten erlaubten, %v.",
	"The number is above the greatest allowed, %v.":                                "Die Zahl liegt über der größten erlaubten, %v.",
	"The number must be above %v.":                                                 "Die Zahl muss größer als %v sein.",
	"The number must be below %v.":                                                 "Die Zahl muss kleiner als %v sein.",
	"The number is not a multiple of %v.":                                          "Die Zahl ist kein Vielfaches von %v.",
	"A field has a name that is not allowed.":                                      "Ein Feld hat einen Namen, der nicht erlaubt ist.",
	"The value is what the schema excludes.":                                       "Der Wert ist das, was das Schema ausschließt.",
	"The value is not allowed by the form's schema.":                               "Das Schema des Formulars erlaubt den Wert nicht.",
	"There is a field here that the form's schema does not know; did you mean %q?": "Hier steht ein Feld, das das Schema des Formulars nicht kennt; ist %q gemeint?",
	"There is a field here that the form's schema does not know.":                  "Hier steht ein Feld, das das Schema des Formulars nicht kennt.",
}
